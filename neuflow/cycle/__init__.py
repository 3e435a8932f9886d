"""The judge *cycle*: the grid's timing, cycle by cycle, without its gates and without data."""
