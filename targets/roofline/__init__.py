"""How long a device takes: its nominal rates, times the share of them that published software reaches."""
