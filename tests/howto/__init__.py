"""What the how-to documents print, letter for letter, so that tests run it."""
