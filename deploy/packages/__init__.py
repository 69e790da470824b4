"""How the .deb and the .rpm are made: `make packages`."""
