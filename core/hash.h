/*
 * hash.h - uthash with XXH3 in place of its own function, which clang's warnings do not like.
 */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <xxhash.h>

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)XXH3_64bits(keyptr, keylen))
#include <uthash.h>

#endif
