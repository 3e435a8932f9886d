"""ONNX -> :class:`neuflow.ir.Graph`: reading and checking the file; ``importer`` does the rest.

Nothing is skipped in silence: what cannot be done exactly as ONNX defines it is refused by a
``ModelError`` of one line: node, operation, reason, and what would do instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto

from neuflow.compiler.importer import OTHER_BATCH, Importer
from neuflow.compiler.importer_step import describe, refuse
from neuflow.compiler.operators import HANDLERS
from neuflow.compiler.simplify import simplify
from neuflow.errors import ModelError
from neuflow.ir import Graph, Node

OLDEST_OPSET = 7
"""Before, broadcasting and batch normalisation meant something else."""


def load(source: str | Path | ModelProto) -> Graph:
    """Read an ONNX model and simplify it.

    Parameters
    ----------
    source : an .onnx file (external data lie beside it), or a model in memory.

    Returns
    -------
    Graph : nodes in topological order, dead nodes dropped, names unique, BatchNormalization and
        per-channel constants folded. Inputs and outputs keep their names.
    """
    name = "model" if isinstance(source, ModelProto) else Path(source).stem
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)  # the caller's stays as it is
    else:
        model = _read(Path(source))
    if not model.graph.output:
        raise ModelError(f"{name}: the graph is empty (no outputs); export a model with layers")
    _check_text(model, name)
    opset = _opset(model, name)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _sort(model, name)
    _check(model, name)
    importer = Importer(model, opset, model.graph.name or name, HANDLERS)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        graph = importer.run()
        if importer.reads_batch:
            _check_batch(graph, Importer(model, opset, graph.name, HANDLERS, OTHER_BATCH).run())
        graph = simplify(graph)
    _check_finite(graph)
    return graph


def _check_batch(graph: Graph, other: Graph) -> None:
    """Refuse a graph that computes with the number of images: ``other`` has another number."""
    for node, changed in zip_longest(graph.nodes, other.nodes):
        if node is None or changed is None or not _same(node, changed):
            raise ModelError(
                f"node {(node or changed).name!r}: computes with the number of images, which is "
                "symbolic; export with the batch fixed"
            )


def _same(a: Node, b: Node) -> bool:
    """Whether two nodes compute the same of the same tensors."""
    if (a.op, a.inputs, a.output, set(a.attrs)) != (b.op, b.inputs, b.output, set(b.attrs)):
        return False
    return all(np.array_equal(a.attrs[key], b.attrs[key]) for key in a.attrs)


def _check_finite(graph: Graph) -> None:
    """Refuse weights that leave float32 when constants are folded into them."""
    for node in graph.nodes:
        for key in ("weight", "bias"):
            if key in node.attrs and not np.isfinite(node.attrs[key]).all():
                raise ModelError(
                    f"node {node.name!r}: its {key}, with what is folded into it, overflows float32; "
                    "train or export the model again"
                )


def _read(path: Path) -> ModelProto:
    """Parse ``path`` and the external data beside it."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of an .onnx file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError):
        raise ModelError(f"{path}: not an ONNX file; export the model to ONNX first") from None
    if not model.ir_version and not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file (it holds no model); export the model first")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        wanted = _external_files(model)
        raise ModelError(
            f"{path}: external data {', '.join(wanted)} cannot be read ({_one_line(error)}); keep "
            "the file beside the model, or save the model with its weights inside"
        ) from None
    return model


def _external_files(model: ModelProto) -> list[str]:
    """Return the names of the files that hold weights of ``model``."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(names)


def _check_text(model: ModelProto, name: str) -> None:
    """Refuse names that are no text: those of a damaged file, which ONNX's own checker stumbles over."""
    graph = model.graph
    texts: list[str | bytes] = [graph.name, *(o.domain for o in model.opset_import)]
    texts += [named.name for named in (*graph.initializer, *graph.input, *graph.output)]
    for node in graph.node:
        texts += [node.op_type, node.name, node.domain, *node.input, *node.output]
        texts += [text for a in node.attribute for text in (a.name, a.s)]
    for text in texts:
        try:
            # Protocol buffers give bytes for a name that is not UTF-8; values are bytes anyway.
            text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError:
            raise ModelError(
                f"{name}: damaged: {text!r} is no text; copy or export the model again"
            ) from None


def _opset(model: ModelProto, name: str) -> int:
    """Return the version of the default operator set."""
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if not versions or not OLDEST_OPSET <= versions[0] <= newest:
        found = versions[0] if versions else "none"
        raise ModelError(
            f"{name}: operator set {found} is not within {OLDEST_OPSET}..{newest}; export with "
            "opset 18, or convert by onnx.version_converter"
        )
    return int(versions[0])


def _sort(model: ModelProto, name: str) -> None:
    """Put the nodes that outputs need into topological order; drop the others."""
    graph = model.graph
    maker = _makers(graph.node)
    known = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    known |= {t.values.name for t in graph.sparse_initializer}
    ordered = _ordered(maker, known, [v.name for v in graph.output], name)
    needed = {id(node) for node in ordered}
    as_written = [node for node in graph.node if id(node) in needed]
    if _is_sorted(as_written, maker):
        ordered = as_written
    del graph.node[:]
    graph.node.extend(ordered)


def _makers(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """Return the node that computes each tensor; refuse two of one tensor."""
    maker: dict[str, NodeProto] = {}
    for node in nodes:
        for output in filter(None, node.output):
            if output in maker:
                raise ModelError(
                    f"{describe(node)}: computes {output!r}, which {describe(maker[output])} computes "
                    "as well; give each result a name of its own"
                )
            maker[output] = node
    return maker


def _is_sorted(nodes: list[NodeProto], maker: dict[str, NodeProto]) -> bool:
    seen: set[str] = set()
    for node in nodes:
        if any(i in maker and i not in seen for i in node.input):
            return False
        seen.update(node.output)
    return True


def _ordered(
    maker: dict[str, NodeProto], known: set[str], wanted: Iterable[str], name: str
) -> list[NodeProto]:
    """Depth-first walk from the outputs, without recursion: deep models would overflow it."""
    ordered: list[NodeProto] = []
    state: dict[int, str] = {}
    stack: list[tuple[NodeProto, bool]] = []
    for output in wanted:
        if output in known and output not in maker:
            continue
        if output not in maker:
            raise ModelError(f"{name}: output {output!r} is computed by no node; export it again")
        stack.append((maker[output], False))
        while stack:
            node, leaving = stack.pop()
            if leaving:
                state[id(node)] = "done"
                ordered.append(node)
                continue
            if id(node) in state:
                if state[id(node)] == "open":
                    raise ModelError(
                        f"{describe(node)}: takes part in a cycle; only graphs without are possible"
                    )
                continue
            state[id(node)] = "open"
            stack.append((node, True))
            for needed in reversed([i for i in node.input if i]):
                if needed in maker:
                    if state.get(id(maker[needed])) != "done":
                        stack.append((maker[needed], False))
                elif needed not in known:
                    raise ModelError(
                        f"{describe(node)}: {needed!r} is missing, neither a weight, an input, nor "
                        "computed by a node; export the model together with its weights"
                    )
    return ordered


def _check(model: ModelProto, name: str) -> None:
    """Let ONNX's own checker have a look, and put its complaint on one line."""
    left = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if (node.domain, node.op_type) in left:  # the inliner takes those of the model's sets alone
            raise refuse(
                node, "is a function of another operator set than the model", "export both with one"
            )
        if node.domain not in ("", "ai.onnx"):
            raise refuse(
                node, f"domain {node.domain!r} is not ONNX's own", "export with standard operators"
            )
        if not onnx.defs.has(node.op_type):
            raise refuse(node, "ONNX has no such operation", "export with standard operators")
    for value in model.graph.output:
        # Shapes of outputs are inferred; the checker insists that one is declared.
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ModelError(
            f"{name}: not a valid ONNX model ({_one_line(error)}); export it again"
        ) from None
    except ValueError:
        # Above 2 GB a model cannot be serialised for the checker; the importer checks shapes.
        return


def _one_line(error: Exception) -> str:
    """Return the first line of a message, without the trailing full stop."""
    text = re.sub(r"\s+", " ", str(error).strip().split("\n\n")[0])
    return text[:200].rstrip(" .")
