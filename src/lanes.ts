/** Takes turns: runs work when it is its turn, in the order of asking. */
export type Lanes = <T>(work: () => Promise<T>) => Promise<T>;

/** Lets at most `count` pieces of work run at once; the others wait in line. */
export function openLanes(count: number): Lanes {
  let free = count;
  const line: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => line.push(resolve));
    try {
      return await work();
    } finally {
      // The lane goes to the next in line without becoming free in between.
      const nextInLine = line.shift();
      if (nextInLine === undefined) free++;
      else nextInLine();
    }
  };
}
