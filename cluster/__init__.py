"""Runs everything: commands > launch > flow > watch | recovery > record > config | handles; imports go this way only."""
