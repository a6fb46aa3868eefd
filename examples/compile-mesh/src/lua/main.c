/* Runs the Lua script that the command line names. */
#include <stdio.h>

#include "lauxlib.h"
#include "lua.h"
#include "lualib.h"

int main(int argc, char **argv) {
    lua_State *state = argc == 2 ? luaL_newstate() : NULL;
    int failed;
    if (state == NULL) {
        fputs("usage: main SCRIPT\n", stderr);
        return 2;
    }
    luaL_openlibs(state);
    failed = luaL_dofile(state, argv[1]) != LUA_OK;
    if (failed) fprintf(stderr, "%s\n", lua_tostring(state, -1));
    lua_close(state);
    return failed;
}
