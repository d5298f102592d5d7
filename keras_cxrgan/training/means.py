"""Means over steps: of a number, and of weights. Both are right on any number of replicas."""

from __future__ import annotations

import keras
import tensorflow as tf


def shared_variable(value, dtype, name: str) -> tf.Variable:
    """Return a variable that every replica gives the same value, such as a counter."""
    return tf.Variable(
        value,
        dtype=dtype,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


class RunningMean(keras.metrics.Metric):
    """The mean of a number over the steps since the last reset.

    Under a strategy the number must be the same on every replica. (Keras' own `Mean` lets each
    replica add to the sum of all in Keras 3.9, so that later steps count ever more.)
    """

    def __init__(self, name: str):
        super().__init__(name=name)
        self.total = shared_variable(0.0, tf.float32, "total")
        self.count = shared_variable(0.0, tf.float32, "count")
        self.former = shared_variable(0.0, tf.float32, "former")

    def update_state(self, value, weight=1.0):
        self.total.assign_add(weight * tf.cast(value, tf.float32))
        self.count.assign_add(weight)

    def result(self):
        # Without a step that counts, as of a penalty that was not due, the last mean there was: 0
        # would look like a gradient that has vanished.
        return tf.where(self.count > 0, self.total / self.count, self.former)

    def reset_state(self):
        self.former.assign(self.result())
        self.total.assign(0.0)
        self.count.assign(0.0)


def move_towards(averages, variables, rate) -> None:
    """Move each average by `rate` of its distance to its variable, on all replicas at once.

    Args:
        averages, variables: Keras variables, in the same order; to be called in a replica.
        rate: scalar in [0, 1]; 1 copies.
    """

    def move(strategy, averages, values, rate):
        def step_towards(average, value, rate):
            average.assign_add(tf.cast(rate, average.dtype) * (value - average))

        for average, value in zip(averages, values):
            strategy.extended.update(average, step_towards, args=(value, rate), group=False)

    tf.distribute.get_replica_context().merge_call(
        move,
        args=(
            [variable.value for variable in averages],
            [variable.value for variable in variables],
            rate,
        ),
    )
