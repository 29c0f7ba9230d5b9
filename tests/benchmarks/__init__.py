"""What a call costs, beside what others need for it: ``make bench``.

Each figure is measured in turn with its rival, in the same run: machines differ, and one machine
differs from minute to minute, so only ratios are judged.
"""
