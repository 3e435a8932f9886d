"""The machine, block by block: gates (Amaranth) with their golden models beside them."""
