"""How the commands write to a terminal."""
