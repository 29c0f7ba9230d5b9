"""Those who let a save make a call: ours, and its rivals, each told of ``Sale`` in its own way."""
