"""Generation conditioned on what the reasoner wrote: a policy's prompt, or a generator's, from a plan of its own."""
