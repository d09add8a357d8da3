"""Runs inside: a small network that learns a curve. Its weights are in memory alone, and no step of it can be undone."""

import math
import random

__all__ = ("loss", "train")

HIDDEN = 12
POINTS = [(x / 20, math.sin(3 * x / 20)) for x in range(-20, 21)]
chance = random.Random(5)  # its own: the global one goes another way in each fork
first = [[chance.gauss(0, 1), chance.gauss(0, 1)] for _ in range(HIDDEN)]
second = [chance.gauss(0, 0.5) for _ in range(HIDDEN)]


def outputs(x: float) -> tuple[list[float], float]:
    hidden = [math.tanh(weight * x + bias) for weight, bias in first]
    return hidden, sum(weight * value for weight, value in zip(second, hidden, strict=True))


def loss() -> float:
    """The mean square of the error."""
    return sum((outputs(x)[1] - y) ** 2 for x, y in POINTS) / len(POINTS)


def train(rate: float, rounds: int = 40) -> float:
    """Goes on learning at this rate, and says how good it is then."""
    for _ in range(rounds):
        for x, y in chance.sample(POINTS, len(POINTS)):
            hidden, guess = outputs(x)
            error = guess - y
            for number, value in enumerate(hidden):
                back = error * second[number] * (1 - value * value)
                second[number] -= rate * error * value
                first[number][0] -= rate * back * x
                first[number][1] -= rate * back
    return loss()
