"""Data sets of a robot's observations, to calibrate and to measure on."""
