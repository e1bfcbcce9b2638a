"""Documents to an index: chunk, embed, write, publish. Streams; memory is bounded by the size of a segment, not of the corpus."""

from tritonrag_export.indexing.building import add_documents, build_index
from tritonrag_export.indexing.encoding import PassageEncoder
from tritonrag_export.indexing.job import BuildOptions, BuildProgress, BuildSummary

__all__ = ["BuildOptions", "BuildProgress", "BuildSummary", "PassageEncoder", "add_documents", "build_index"]
