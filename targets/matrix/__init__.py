"""The generated page docs/targets.md: the catalogue, and target x recipe x graph as far as it is proven."""

from motedge.targets.matrix.page import make_page

__all__ = ["make_page"]
