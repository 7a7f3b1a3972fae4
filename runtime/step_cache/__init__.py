"""Steps that take a velocity from earlier ones in place of a forward; off unless the sampler's settings name a rule."""
