"""Every privacy claim the project makes, in files to be read in this order.

What a hospital decides: ``policy`` (noise, clipping, caps). What it costs: ``accountant``, written
down before it is spent in ``ledger`` (on ``sealed_log``), foreseen in ``planning``. Training:
``sampling`` draws patients, ``gradients`` clips each one's (``layers``: fast), ``noise`` adds what
nobody else can know, ``refusals`` says what cannot be private. Sums: ``noised_sums`` by the
exact ``discrete_gaussian``, made to fit together in ``consistency``; ``suppression`` of small
counts, always. Between hospitals: ``secure_sum``, and noise on whole updates in ``updates`` and
``update_noise``. Whether it holds: ``audit``, attacks on our own releases.
"""
