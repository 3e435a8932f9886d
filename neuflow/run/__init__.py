"""The judges: golden (NumPy), cycle (fast model), rtl (the Verilog), and the host's part."""
