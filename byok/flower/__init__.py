"""Flower, closed: operators look at workers and tasks, and nobody changes or learns more through it."""
