"""Stands for the directory of plug-ins of Wok 3.0.0."""
