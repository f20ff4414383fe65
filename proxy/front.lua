-- What orders say of a service's requests and answers: headers, origins, who it is.

local resp = require "ngx.resp"
local facts = require "services"

local M = {}

local METHODS = "GET, POST, OPTIONS, PUT, PATCH, DELETE"
local DAYS = 1728000 -- seconds that a browser may remember what it was told of an origin
local none = {}

-- No identity that a client claims reaches an app. Returns the headers of the request.
function M.strip(service)
    local fact = facts.services[service] or none
    local headers = ngx.req.get_headers(0)
    for name in pairs(headers) do
        if name == "x-identity" or name == fact.identity or name:sub(1, 4) == "jwt-" then
            ngx.req.clear_header(name)
        end
    end
    return headers
end

function M.add_headers(service)
    local fact = facts.services[service]
    for name, value in pairs(fact and fact.request or none) do
        ngx.req.set_header(name, value)
    end
end

local function admitted(fact, origin)
    if fact.origins[origin] then return origin end
    return fact.origins["*"] and "*" or nil
end

-- Browsers ask without credentials whether a page may ask at all: that is not the app's to answer.
function M.preflight(service)
    local fact = facts.services[service]
    if not fact or not fact.origins or ngx.req.get_method() ~= "OPTIONS" then return end
    local var = ngx.var
    if var.http_origin and var.http_access_control_request_method then ngx.exit(204) end
end

local function share(fact)
    local var, header = ngx.var, ngx.header
    header["Access-Control-Allow-Origin"] = nil
    header["Access-Control-Allow-Credentials"] = nil
    resp.add_header("Vary", "Origin")
    local origin = var.http_origin
    local allowed = origin and admitted(fact, origin)
    if not allowed then return end
    header["Access-Control-Allow-Origin"] = allowed
    if allowed ~= "*" then header["Access-Control-Allow-Credentials"] = "true" end
    if ngx.req.get_method() == "OPTIONS" and var.http_access_control_request_method then
        header["Access-Control-Allow-Methods"] = METHODS
        header["Access-Control-Max-Age"] = DAYS
        local asked = var.http_access_control_request_headers
        if asked and #asked <= 4000 and asked:find("^[%w!#$&'*+.^_`|~, -]+$") then
            header["Access-Control-Allow-Headers"] = asked
        end
    end
end

-- Header filter: what is set over the app's own.
function M.answer(service)
    for _, cookie in ipairs(ngx.ctx.cookies or none) do
        resp.add_header("Set-Cookie", cookie)
    end
    local fact = facts.services[service]
    if not fact then return end
    for name, value in pairs(fact.response or none) do
        ngx.header[name] = value
    end
    if fact.origins then share(fact) end
end

return M
