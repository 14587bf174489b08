"""Control variates of SCAFFOLD: the one step that the centre and a hospital must take alike.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML),
Algorithm 1, option II. From the global model ``x`` hospital ``i`` goes to ``y_i`` in ``K`` steps of
rate ``eta``, each along its gradient plus ``c - c_i``, and then::

    c_i+ = c_i - c + (x - y_i) / (K eta)

which is the mean of the gradients it saw. So the change of its variate::

    D_i = c_i+ - c_i = (x - y_i) / (K eta) - c

follows from its model and one number, ``K eta``: the variate itself never travels, and the centre
learns nothing that the model does not say but the number of steps (so of batches). Where the rate
differs from step to step ``K eta`` is the sum of the rates.
"""

import numpy as np

from protocol.arrays import Arrays, check_finite

__all__ = ["control_change", "moved", "no_control"]


def no_control(arrays: Arrays) -> Arrays:
    """Return the control variate before the first round: zeros, one for each trained array.

    Counters (integers) have no gradient and no variate. Half precision is kept in single.
    """
    return {
        name: np.zeros(array.shape, np.float64 if array.dtype == np.float64 else np.float32)
        for name, array in arrays.items()
        if array.dtype.kind == "f"
    }


def control_change(
    sent: Arrays, trained: Arrays, control: Arrays, rate_sum: float, where: str
) -> Arrays:
    """Return ``D_i``, how a hospital's control variate changes by one round.

    Parameters
    ----------
    sent, trained : Arrays
        ``x`` and ``y_i``, of one layout.
    control : Arrays
        ``c``, of the layout of `no_control`.
    rate_sum : float
        ``K eta``, the sum of the learning rates of all steps, > 0.
    where : str
        Whose change it is, for the sentence.

    Raises
    ------
    PayloadError
        If the change is not finite, as after a rate that is next to nothing.
    """
    with np.errstate(all="ignore"):
        change = {
            # numpy turns arrays of no dimension into scalars.
            name: np.asarray((sent[name] - trained[name]) / c.dtype.type(rate_sum) - c)
            for name, c in control.items()
        }
    check_finite(change, where)
    return change


def moved(variate: Arrays, change: Arrays) -> Arrays:
    """Return ``c_i + D_i``.

    This, and not ``c_i+`` itself, is the hospital's next variate: it is rounded as the centre's sum
    is, so that one hospital's ``c_i`` stays equal to ``c`` to the bit.
    """
    return {name: np.asarray(variate[name] + step) for name, step in change.items()}
