"""``python -m course_lib``: what the course finds on this machine, and how to mend what is missing."""

import sys

from course_lib.doctor import main

sys.exit(main())
