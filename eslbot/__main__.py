"""``python -m eslbot`` and the console script are the same program."""

from eslbot.cli import main

if __name__ == "__main__":
    main()
