"""Stands for the models of Wok 3.0.0."""
