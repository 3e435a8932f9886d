"""The one family of errors that a user can cause. Everything else that is raised is a bug."""


class NeuflowError(Exception):
    """A user's error: one line that names the cause and the fix. The CLI exits with code 2."""


class ConfigError(NeuflowError):
    """A grid description that cannot be built."""


class ModelError(NeuflowError):
    """An ONNX model that cannot be read, or is not supported."""


class CompileError(NeuflowError):
    """A model that this grid cannot run."""


class InputError(NeuflowError):
    """Input data that does not fit the program."""


class ProgramError(NeuflowError):
    """A program file that is damaged, or made for another grid."""


class ToolError(NeuflowError):
    """A tool of the machine is missing (C++ compiler, Perl, make)."""


class HardwareError(NeuflowError):
    """The grid stopped with an error code (watchdog, bus error, bad program)."""
