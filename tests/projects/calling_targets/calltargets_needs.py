"""Needs a package that is not there."""

import no_such_package_of_anyone  # noqa: F401
