"""TensorRT's versions: what each has, lacks and names differently."""
