"""Figures and tables of finished runs, and the page of them."""
