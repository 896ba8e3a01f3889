/** What manifests call the codecs that this build knows. Whoever only wants to know that does not load the codecs themselves. */

/** The codec that manifests name; which of the others made a segment, the delta says itself. */
export const CODEC = "edgesync-1";

export const knownCodecs: readonly string[] = [CODEC];
