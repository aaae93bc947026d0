"""Flows as scenarios: given a world, when somebody acts, then the rows and the engines' ledgers say so."""
