"""Readers of translators' exchange formats in XML: TMX and XLIFF, one unit at a time."""
