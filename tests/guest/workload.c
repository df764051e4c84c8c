// A small program for the compiler run of workload.sh: integers, floating point of both kinds, strings, sorting.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252ull;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int compare(const void* a, const void* b) {
  const uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}

static unsigned sieve(unsigned limit) {
  char* composite = calloc(limit, 1);
  unsigned count = 0;
  for (unsigned i = 2; i < limit; i++) {
    if (composite[i]) continue;
    count++;
    for (unsigned j = 2 * i; j < limit; j += i) composite[j] = 1;
  }
  free(composite);
  return count;
}

int main(void) {
  static uint64_t numbers[2000];
  for (int i = 0; i < 2000; i++) numbers[i] = next();
  qsort(numbers, 2000, sizeof numbers[0], compare);
  uint64_t hash = 14695981039346656037ull;
  for (int i = 0; i < 2000; i++) hash = (hash ^ numbers[i]) * 1099511628211ull;
  double sum = 0;
  long double wide = 0;
  float narrow = 0;
  for (int i = 1; i < 5000; i++) {
    sum += sin(i) / sqrt(i);
    wide += 1.0L / i / i;
    narrow += 1.0f / (float)i;
  }
  char text[64];
  snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
  printf("%s %zu %u %a %.18Lg %a %lld\n", text, strlen(text), sieve(20000), sum, wide, narrow, (long long)(int64_t)hash / 12345);
  return 0;
}
