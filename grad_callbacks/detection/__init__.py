"""Detection: readings in, alerts with their likely cause out.

``rules`` raise alerts from readings alone, ``diagnosis`` looks for an alert's cause in the model, ``plain_numbers``
rounds what both show.
"""
