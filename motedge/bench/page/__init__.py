"""bench.html: one file with its pictures inside, no script, no network; light and dark."""
