/** A uniformly chosen subset of at most `count` items (Fisher-Yates); all of them shuffled by default. */
export function sample<T>(items: readonly T[], random: () => number, count = items.length): T[] {
  const pool = [...items];
  const size = Math.min(count, pool.length);
  for (let i = 0; i < size; i++) {
    const j = i + Math.floor(random() * (pool.length - i));
    const picked = pool[j] as T;
    pool[j] = pool[i] as T;
    pool[i] = picked;
  }
  pool.length = size;
  return pool;
}
