"""Detectors of others as functions that find objects. Each loads its library when called; weights come by path."""
