"""Dropping unread wires: what is read stays, chains of unread wires go, other modules don't count."""

from __future__ import annotations

from neuflow.tidy import drop_unread

TEXT = """\
module one(a, q);
  wire \\p.words[0] ;
  assign \\p.words[0]  = a[3:0];
  (* init = 4'h7 *)
  wire [3:0] first;
  (* init = 4'h1 *)
  (* keep = 1 *)
  wire [3:0] second;
  (* init = 1'h0 *)
  wire read;
  assign second = first;
  assign first = a;
  assign read = a[0];
  assign q = read;
  input [3:0] a;
  wire [3:0] a;
  output q;
  wire q;
endmodule
module two(b);
  wire first;
  assign first = b;
  part p (.b(first));
  input b;
  wire b;
endmodule
"""


def test_only_unread_wires_go() -> None:
    kept = drop_unread(TEXT)
    one, two = kept.split("endmodule\n")[:2]
    assert "words" not in one and "second" not in one and "first" not in one
    assert "assign q = read;" in one and "assign read = a[0];" in one
    assert two == TEXT.split("endmodule\n")[1]


def test_the_attributes_of_what_goes_go_too() -> None:
    one = drop_unread(TEXT).split("endmodule\n")[0]
    assert one.count("(*") == 1 and "(* init = 1'h0 *)\n  wire read;" in one


def test_tidy_text_is_left_alone() -> None:
    assert drop_unread(drop_unread(TEXT)) == drop_unread(TEXT)
