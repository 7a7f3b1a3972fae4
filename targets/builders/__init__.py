"""From a bundle's graphs to engines for one target, with a record of what was built: `engines/<target>/build.json`."""
