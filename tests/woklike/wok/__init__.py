"""Stands for the package `wok` of Wok 3.0.0."""
