"""The production driver under a virtual clock: every port call is a place where something may go wrong."""
