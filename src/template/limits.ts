/** What one template may cost, so that a mistake in it, or an odd secret, ends in an error and not in a machine without memory. */

/** Bytes of a template's text. */
export const MAX_TEMPLATE = 256 * 1024;

/** Bytes of what is rendered, and of every text on the way there. */
export const MAX_TEXT = 1024 * 1024;

/** Actions, operands and turns of `range` of one rendering. */
export const MAX_STEPS = 200_000;

/** Bytes of all texts and lists that one rendering makes, together. */
export const MAX_WORK = 8 * 1024 * 1024;

/** Levels of blocks and parentheses in a template. */
export const MAX_NESTING = 100;

/** Levels of blocks, parentheses and templates within templates while it is rendered. */
export const MAX_DEPTH = 400;

/** Levels of lists and maps in a secret. */
export const MAX_DATA_DEPTH = 200;

/** Variables that are known at one place. */
export const MAX_VARIABLES = 1000;

/** Bytes of a layout of `timestamp`. */
export const MAX_LAYOUT = 1024;

/** Different secrets that one rendering asks for. */
export const MAX_CALLS = 1000;

/** Different secrets that a sidecar follows for one template: their paths may be computed, pass by pass. */
export const MAX_FOLLOWED = 64;
