"""The graphs as torch modules, named after the checkpoint's keys. Weights are held as the graphs take them."""
