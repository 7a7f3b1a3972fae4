"""Pieces of self-contained HTML pages: one style sheet, inline SVG, light and dark."""
