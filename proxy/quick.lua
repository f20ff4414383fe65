-- What is done for every request, in ways that LuaJIT compiles: what it does not compile once, it
-- leaves to its interpreter for good, with all that calls it. So it is with closures, with loops that
-- end as soon as they began, and with functions that return what a built-in one does.

local base = require "resty.core.base"
local ffi = require "ffi"
require "resty.core.request" -- declares what is called here
require "resty.core.time"
require "resty.core.var"

local C, to_string = ffi.C, ffi.string
local get_request, get_buffer = base.get_request, base.get_string_buf

local M = { scheme = "scheme" } -- the variable that says how the client asks

local ELEMENTS = ffi.typeof("ngx_http_lua_ffi_table_elt_t*")
local SIZE = ffi.sizeof("ngx_http_lua_ffi_table_elt_t")
local NUMBER = ffi.typeof("uintptr_t")
local truncated = ffi.new("int[1]")
local ROUNDS = 8 -- at least, of a loop
local J, C_OF_COOKIE = 106, 99
local KINDS = {
    ["x-identity"] = "claim", ["authorization"] = "login", ["upgrade"] = "more",
    ["content-length"] = "more", ["transfer-encoding"] = "more",
}
local LENGTHS = {}
for name in pairs(KINDS) do LENGTHS[#name] = true end

-- As resty.core reads a variable, but for the last line.
local variables = getmetatable(ngx.var)
local of_any_kind = variables.__index
local value, size, problem = ffi.new("unsigned char *[1]"), ffi.new("size_t[1]"), ffi.new("char *[1]")
variables.__index = function(self, name)
    if type(name) ~= "string" then return of_any_kind(self, name) end
    local length = #name
    local status = C.ngx_http_lua_ffi_var_get(get_request(), name, length, get_buffer(length), 0,
        value, size, problem)
    if status ~= 0 then return nil end
    local text = to_string(value[0], size[0])
    return text
end

-- Seconds, as ngx.now.
function M.now()
    local now = C.ngx_http_lua_ffi_now()
    return now
end

-- The request at hand: a number that no other one of this worker has while it lasts.
function M.request()
    local number = tonumber(ffi.cast(NUMBER, get_request()))
    return number
end

-- Names in small letters that only the ship may say, or nil; how many Authorization headers there
-- are; whether there may be more to come than a head; whether there may be a cookie. `identity` is
-- a name of the first kind. A table of all headers, as ngx.req.get_headers makes one, would cost
-- more than all else.
function M.headers(identity)
    local request = get_request()
    local count = C.ngx_http_lua_ffi_req_get_headers_count(request, 0, truncated)
    if count <= 0 then return nil, 0, false, false end
    local elements = ffi.cast(ELEMENTS, get_buffer(count * SIZE))
    if C.ngx_http_lua_ffi_req_get_headers(request, elements, count, 0) ~= 0 then
        return ngx.exit(500)
    end
    local claims, logins, more, cookie = nil, 0, false, false
    for i = 0, math.max(count, ROUNDS) - 1 do
        local key = elements[i].key
        local length = i < count and key.len or 0
        if length == 6 and key.data[0] == C_OF_COOKIE then cookie = true end
        if length > 0 and (LENGTHS[length] or length == #identity or key.data[0] == J) then
            local name = to_string(key.data, length)
            local kind = KINDS[name]
            if kind == "claim" or name == identity or name:sub(1, 4) == "jwt-" then
                claims = claims or {}
                claims[#claims + 1] = name
            elseif kind == "login" then
                logins = logins + 1
            elseif kind then
                more = true
            end
        end
    end
    return claims, logins, more, cookie
end

return M
