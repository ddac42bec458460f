"""What FreeSWITCH's unit runs: ``python -m eslbot.recovery``."""

from eslbot.recovery.command import main

raise SystemExit(main())
