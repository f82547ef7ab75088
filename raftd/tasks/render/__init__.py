"""The ray tracing job: one tile of a frame is one task.

Nothing lives in this file: ``frame`` is checked on every submit by processes that never render, so importing the
package must stay free of Mitsuba. ``frame`` (arguments and geometry) is light and pure; ``scene``, ``bundle``,
``tile`` and ``reference`` render; ``task`` is what the registry of kinds points at.
"""
