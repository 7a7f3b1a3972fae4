"""Quantized graphs: standard Q/DQ written next to the named MatMuls of a clean graph, with packed weights."""
