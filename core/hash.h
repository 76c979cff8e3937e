/*
 * hash.h - uthash with XXH3 in place of its own function, which clang's warnings do not like.
 *
 * Out of memory is an answer: after HASH_ADD, core_hashed(item) says whether item is in the table. uthash
 * left to itself ends the process.
 */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <xxhash.h>

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)XXH3_64bits(keyptr, keylen))
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define core_hashed(item) ((item)->hh.tbl != NULL)

#endif
