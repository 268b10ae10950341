// Arithmetic on a few hundred vectors.

/** Cosines [n][n] of vectors, which the service gives with length 1. */
export const cosines = (vectors) => vectors.map((a) => vectors.map((b) => a.reduce((sum, value, at) => sum + value * b[at], 0)));

/** Places [n][2] between 0 and 1 by the two main components of similarities [n][n] (classical scaling). */
export function project(matrix) {
  const centred = centre(matrix);
  const axes = [];
  for (let axis = 0; axis < 2; axis++) axes.push(mainDirection(centred, axes));
  return matrix.map((_, at) => axes.map((values) => scaled(values, at)));
}

function centre(matrix) {
  const means = matrix.map(mean);
  const all = mean(means);
  return matrix.map((row, a) => row.map((value, b) => value - means[a] - means[b] + all));
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const dot = (a, b) => a.reduce((sum, value, at) => sum + value * b[at], 0);

/** The eigenvector of the largest eigenvalue that is orthogonal to the ones before, by power iteration. */
function mainDirection(matrix, before) {
  let vector = matrix.map((_, at) => Math.sin(1 + at * (before.length + 1)));
  for (let round = 0; round < 60; round++) {
    let next = matrix.map((row) => dot(row, vector));
    for (const other of before) {
      const share = dot(next, other);
      next = next.map((value, at) => value - share * other[at]);
    }
    const length = Math.sqrt(dot(next, next)) || 1;
    vector = next.map((value) => value / length);
  }
  return vector;
}

function scaled(values, at) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return high > low ? (values[at] - low) / (high - low) : 0.5;
}
